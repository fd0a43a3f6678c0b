"""Provider adapters, one file per provider. Each file ends with its `PLUGIN`."""
