"""What the API says of itself: OpenAPI of its calls, and AsyncAPI of its streams."""
