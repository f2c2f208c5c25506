"""HTTP out: the connector that checks every address, the dispatch, the clocks."""
