// What a reader would stumble over in a page, as "kind: where" lines; run inside the page by tests/html/browser.py.
() => {
  const found = [];
  const say = (kind, what) => found.push(`${kind}: ${String(what).trim().slice(0, 80)}`);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const seen = (element) => {
    const style = getComputedStyle(element);
    return element.getClientRects().length > 0 && style.visibility !== "hidden" && style.display !== "none";
  };

  // The page itself never scrolls sideways.
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth + 1) say("overflow", `${root.scrollWidth} > ${root.clientWidth}`);

  // Text is not cut by its box, and text of a drawing lies inside the drawing.
  for (const element of all("body, body *")) {
    const style = getComputedStyle(element);
    const hides = ["hidden", "clip"].includes(style.overflowX) || style.textOverflow === "ellipsis";
    if (hides && element.scrollWidth > element.clientWidth + 1) say("cut", element.textContent);
  }
  for (const text of all("svg text").filter(seen)) {
    const [inner, outer] = [text.getBoundingClientRect(), text.closest("svg").getBoundingClientRect()];
    const out = Math.max(outer.left - inner.left, inner.right - outer.right, outer.top - inner.top,
      inner.bottom - outer.bottom);
    if (out > 2) say("cut", `${text.textContent} (${out.toFixed(1)} outside its drawing)`);
  }

  // Visible text in boxes: of HTML by line, of drawings by text, less what a scrolling box hides.
  const boxes = [];
  const clipped = (rect, element) => {
    let box = { left: rect.left, right: rect.right, top: rect.top, bottom: rect.bottom };
    for (let up = element; up; up = up.parentElement) {
      if (getComputedStyle(up).overflowX === "visible") continue;
      const edge = up.getBoundingClientRect();
      box = { left: Math.max(box.left, edge.left), right: Math.min(box.right, edge.right),
        top: Math.max(box.top, edge.top), bottom: Math.min(box.bottom, edge.bottom) };
    }
    return box;
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.data.trim() && seen(node.parentElement) && !["STYLE", "SCRIPT", "TITLE"].includes(node.parentElement.tagName.toUpperCase())) texts.push(node);
  }
  for (const node of texts) {
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const rect of range.getClientRects()) {
      const box = clipped(rect, node.parentElement);
      if (box.right - box.left > 1 && box.bottom - box.top > 1) boxes.push({ ...box, node });
    }
  }
  boxes.sort((a, b) => a.top - b.top);
  for (let i = 0; i < boxes.length; i++) {
    for (let j = i + 1; j < boxes.length && boxes[j].top < boxes[i].bottom - 3; j++) {
      const [a, b] = [boxes[i], boxes[j]];
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (a.node !== b.node && across > 2 && down > 3) say("overlap", `${a.node.data} / ${b.node.data}`);
    }
  }

  // A word is on one line and in one piece, unless it is wider than its box.
  const block = (element) => {
    while (getComputedStyle(element).display.startsWith("inline")) element = element.parentElement;
    return element;
  };
  const groups = new Map();
  const order = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
  while (order.nextNode()) {
    const node = order.currentNode;
    const isText = node.nodeType === Node.TEXT_NODE;
    if (isText ? !seen(node.parentElement) : !["WBR", "BR"].includes(node.tagName)) continue;
    if (node.parentElement.closest("svg, style, script")) continue;
    const home = block(node.parentElement);
    if (!groups.has(home)) groups.set(home, []);
    const letters = groups.get(home);
    if (isText) for (let at = 0; at < node.data.length; at++) letters.push([node.data[at], node, at]);
    else letters.push([" ", null, 0]);
  }
  for (const [home, letters] of groups) {
    const text = letters.map(([letter]) => letter).join("");
    const style = getComputedStyle(home);
    const room = home.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const boxesOf = (match) => letters.slice(match.index, match.index + match[0].length).map(([, node, at]) => {
        const range = document.createRange();
        range.setStart(node, at);
        range.setEnd(node, at + 1);
        return range.getBoundingClientRect();
      }).filter((rect) => rect.width > 0);
    const wide = [...text.matchAll(/\S+/gu)]
      .filter((run) => boxesOf(run).reduce((sum, rect) => sum + rect.width, 0) > room);
    for (const match of text.matchAll(/[\p{L}\p{N}\p{M}]+/gu)) {
      if (wide.some((run) => run.index <= match.index && match.index < run.index + run[0].length)) continue;
      const rects = boxesOf(match);
      for (let i = 1; i < rects.length; i++) {
        const size = rects[i].height;
        const apart = Math.abs(rects[i].top - rects[i - 1].top) > size / 2;
        if (apart || rects[i].left - rects[i - 1].right > 0.2 * size) {
          say("broken word", match[0]);
          break;
        }
      }
    }
  }

  // Contrast of at least 4.5 between text and what is behind it.
  const colour = (value) => (value.match(/[\d.]+/g) || []).map(Number);
  const over = ([r, g, b, a = 1], under) => [r, g, b].map((one, i) => a * one + (1 - a) * under[i]);
  const paper = (element) => {
    const layers = [];
    for (let up = element; up; up = up.parentElement) {
      const one = colour(getComputedStyle(up).backgroundColor);
      layers.push(one);
      if (one.length < 4 || one[3] === 1) break;
    }
    const dark = matchMedia("(prefers-color-scheme: dark)").matches && getComputedStyle(root).colorScheme.includes("dark");
    return layers.reverse().reduce((under, one) => over(one, under), dark ? [18, 18, 18] : [255, 255, 255]);
  };
  const light = (rgb) => rgb.map((one) => one / 255)
    .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
    .reduce((sum, one, i) => sum + one * [0.2126, 0.7152, 0.0722][i], 0);
  for (const node of texts) {
    const element = node.parentElement;
    const style = getComputedStyle(element);
    const behind = paper(element);
    let ink = colour(element.closest("svg") ? style.fill : style.color);
    let opacity = ink.length === 4 ? ink[3] : 1;
    for (let up = element; up; up = up.parentElement) opacity *= Number(getComputedStyle(up).opacity);
    ink = over([...ink.slice(0, 3), opacity], behind);
    const [low, high] = [light(ink), light(behind)].sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < 4.5) say("contrast", `${contrast.toFixed(2)} of ${node.data}`);
  }

  // Whatever is no text has a text.
  for (const image of all("img")) if (!image.hasAttribute("alt")) say("no words", image.src);
  for (const drawing of all("svg")) {
    const named = drawing.getAttribute("aria-label") || drawing.closest("[role=img][aria-label]");
    if (!named) say("no words", "svg");
  }
  for (const box of all("[role=img], [role=region]")) {
    if (!box.getAttribute("aria-label")) say("no words", box.className || box.tagName);
  }
  for (const box of all("body *")) {
    const scrolls = ["auto", "scroll"].includes(getComputedStyle(box).overflowX) && box.scrollWidth > box.clientWidth;
    if (scrolls && box.tabIndex < 0) say("no keyboard", box.className || box.tagName);
  }
  if (!document.title || !root.lang) say("no words", "title or language of the page");
  return found;
}
