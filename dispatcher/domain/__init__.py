"""Types and small rules of the domain. Pure: no input or output, and nothing of `dispatcher` but this package."""
