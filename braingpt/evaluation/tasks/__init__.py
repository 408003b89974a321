"""Tasks made here, in the languages of the product."""
