"""Types and small rules of the domain. Pure: no input or output, and no import of other packages of `dispatcher`."""
