"""What replicas know of each other: their presence, and questions that all of them answer."""
