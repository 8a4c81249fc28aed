"""The fast form of mining and comparing; tests/losses/crl/fast compares it with the readable form."""
