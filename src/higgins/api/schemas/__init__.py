"""What a request may carry: kinds of values, and the fields of each noun with the microversion that brought them."""
