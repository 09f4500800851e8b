"""The reading of feeds: what is published arrives here, lane by lane."""
