"""A step of generation in C++: one token of one row through a whole model, without Python between layers."""
