"""Several processes that train one model: the world of ranks, and tensors spread over them."""
