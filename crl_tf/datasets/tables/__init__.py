"""Tables of paths and labels: CSV, Parquet, their YAML schema."""
