"""The judgement: one score table, and every figure, plot and page made from it."""
