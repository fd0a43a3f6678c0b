"""The API's responses. FastAPI validates each response against these, so the OpenAPI document stays true."""
