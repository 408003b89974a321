"""Which columns win a token: router, lateral inhibition, top-k."""
