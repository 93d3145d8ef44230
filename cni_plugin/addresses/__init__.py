"""Between the verbs and the pool: which address a call gets, and its release."""
