"""The page of the API reference: Swagger UI, whose files come from the package `fastapi-swagger`, with our own start and style."""
