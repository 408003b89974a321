"""What must not change unnoticed: tensor names, the command line, JSON keys, files of earlier versions.

`python -m tests.frozen.record` says how a wanted change is recorded. Of the package only `import braingpt`
and `braingpt.cli.main` are used, so that modules can move.
"""
