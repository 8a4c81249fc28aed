"""The losses. `base` has their interface, `table` lists them; one file for each loss, and a package for CRL.

In `crl`: profiling → mining → comparison → rectification → loss. The rectification is written twice. `mining` and `comparison`
are the readable form, with every anchor and every triplet as in the equations. `crl.fast` computes the same numbers from fewer
rows and without triplets; it is what runs. `rectification` composes the six variants in both forms. The tests compare the fast
form with the readable one, and the readable one with loops over the equations.
"""
