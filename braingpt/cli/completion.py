"""What a shell proposes on Tab: values of options and arguments, and the script that asks for them.

Typer proposes commands and options. The values here come from files of the package and of the current folder;
nothing imports torch. A function returns all values, and Typer keeps those that begin with the typed word.
Where nothing fits, shells propose files.
"""

from pathlib import Path
from typing import Any

import typer

DTYPES = ("float32", "int8")
SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")
# The options of Typer that may be followed by the name of a shell.
SCRIPT_OPTIONS = ("--show-completion", "--install-completion")


def named_shell(ctx: typer.Context, args: list[str]) -> None:
    """Show or install the script of the shell that `--show-completion zsh` names, or of the present one.

    Typer's own options are flags that only know the present shell.

    Raises:
        UserError: The named shell is unknown, or the present one cannot be found out.
    """
    from typer import completion

    from braingpt.errors import UserError, did_you_mean

    option = next((word for word in args if word.partition("=")[0] in SCRIPT_OPTIONS), None)
    if option is None or ctx.resilient_parsing:
        return
    name, _, shell = option.partition("=")
    shell = shell or "".join(args[args.index(option) + 1 :][:1]) or _present_shell()
    if shell not in SHELLS:
        raise UserError(
            f"unknown shell '{shell}'{did_you_mean(shell, SHELLS)}"
            if shell
            else f"cannot tell which shell this is; name it: braingpt {name} bash (or zsh, fish, powershell)"
        )
    show_or_install: Any = (
        completion.show_callback if name == "--show-completion" else completion.install_callback
    )
    show_or_install(ctx, None, shell)


def _present_shell() -> str:
    """The name of the shell that started this process, "" where it is none of those known."""
    import shellingham

    try:
        shell = shellingham.detect_shell()[0]
    except (shellingham.ShellDetectionFailure, OSError):
        return ""
    return shell if shell in SHELLS else ""


def recipes() -> list[str]:
    """Names of the shipped recipes."""
    from braingpt.recipes import shipped

    return shipped()


def sizes() -> list[str]:
    """Sizes of the shipped recipes."""
    return [name.removesuffix("-dense") for name in recipes() if name.endswith("-dense")]


def architectures() -> list[str]:
    """What `bench` compares."""
    known = dict.fromkeys(name.partition("-")[2] for name in recipes() if name.startswith(tuple(sizes())))
    return sorted(known)


def recipe_keys() -> list[str]:
    """`KEY=` for each key of a recipe."""
    from braingpt.recipes import keys

    return [f"{key}=" for key in keys.recipe_keys()]


def runs(incomplete: str) -> list[str]:
    """The runs under runs/, and the checkpoints of a run that is typed already."""
    from braingpt.checkpoint.listing import CHECKPOINTS, list_checkpoints

    folders = sorted(path.parent for path in Path("runs").glob(f"*/{CHECKPOINTS}"))
    begun = [
        path for folder in folders if incomplete.startswith(f"{folder}/") for path in list_checkpoints(folder)
    ]
    return [str(path) for path in begun or folders]


def run_names(incomplete: str) -> list[str]:
    """The runs under runs/, by name or as a path."""
    found = runs(incomplete)
    return found if incomplete.startswith("runs") else [Path(path).name for path in found]


def prepared_folders() -> list[str]:
    """The prepared folders under data/."""
    from braingpt.data.shards.manifest import NAME

    return sorted(str(path.parent) for path in Path("data").glob(f"*/{NAME}"))


def corpora() -> list[str]:
    """What `data prepare` can prepare."""
    from braingpt.data.sources.catalog import PREPARATIONS

    return list(PREPARATIONS)


def languages() -> list[str]:
    """Codes of the languages that the shipped tokenizer marks."""
    from braingpt.tokenizer.language import LANGUAGES

    return list(LANGUAGES)


def tokenizers() -> list[str]:
    """Vocabularies that are known by name."""
    from braingpt.tokenizer.named import NAMED

    return list(NAMED)


def devices() -> list[str]:
    """Where a model can compute."""
    return ["auto", "cpu", "cuda"]


def dtypes() -> list[str]:
    """How the weights of a model can be held."""
    return list(DTYPES)


def checkpoints_to_resume(incomplete: str) -> list[str]:
    """`auto`, and runs with their checkpoints."""
    return ["auto", *runs(incomplete)]
