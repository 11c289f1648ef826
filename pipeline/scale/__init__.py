"""What clusters cost at any size, on made-up embeddings: training, assignment, search. Read ``curve`` first."""
