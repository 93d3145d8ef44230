"""Between the verbs and the pool: which address a call gets, and what becomes of it."""
