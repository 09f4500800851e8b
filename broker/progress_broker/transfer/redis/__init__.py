"""Operations in Redis: read whole, and stored whole or not at all."""
