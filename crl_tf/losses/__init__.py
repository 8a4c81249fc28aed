"""Losses: profiling → mining → comparison → rectification → crl; beside them the other losses.

The rectification is written twice. `mining` and `comparison` are the readable form: every anchor, every triplet, as the
equations have them; read these. The files called `fast_…` give the same numbers from as few anchors as there are and without
triplets; they are what runs, and tests/losses/test_fast_form.py holds them to the readable form, which the oracle holds to
SPEC.md. `rectification` composes the six variants in both forms (`class_rectification_loss(..., form="readable")`).
"""
