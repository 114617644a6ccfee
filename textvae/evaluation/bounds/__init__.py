"""How tight the lower bounds on log p(x) are, and what a better posterior could gain."""
