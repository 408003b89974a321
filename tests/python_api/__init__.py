"""The Python API as a user meets it: typed, checked, without side effects."""
