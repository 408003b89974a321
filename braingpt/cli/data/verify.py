"""`braingpt data verify`: checks that the files of a prepared folder are unchanged."""

from braingpt.cli.console import console, print_line
from braingpt.cli.json_output import Json, print_json
from braingpt.cli.options import PreparedFolder


def verify(folder: PreparedFolder, json_output: Json = False) -> None:
    """Check every file of a prepared folder.

    Hashes, token ids within the vocabulary, unknown files. The exit code is 1 if there is a problem.

    Examples:
        braingpt data verify data/sample
    """
    from braingpt.data.shards.documents import DocumentReader
    from braingpt.data.shards.manifest import read_manifest
    from braingpt.data.shards.manifest import verify as find_problems
    from braingpt.errors import Failure

    manifest = read_manifest(folder)
    problems = find_problems(folder, manifest)
    if not problems:
        try:
            problems = DocumentReader(folder).problems()
        except (ValueError, RuntimeError, OSError) as error:
            problems = [str(error)]
    files = sum(len(stream.files) for stream in manifest.streams)
    if json_output:
        print_json({"folder": str(folder), "files": files, "problems": problems})
    elif not problems:
        print_line(console(), f"{folder}: {files} files are as they were written")
    if problems:
        count = f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}"
        raise Failure(f"{folder}: {count}: {'; '.join(problems)}")
