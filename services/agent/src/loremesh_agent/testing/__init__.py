"""Model providers to test against: their wire formats over real HTTP, for whatever asks them."""
