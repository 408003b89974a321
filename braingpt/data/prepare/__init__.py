"""A preparation from request to published folder."""
