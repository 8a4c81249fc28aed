"""The fast form of mining and comparing, held to the readable form by tests/losses/crl/fast."""
