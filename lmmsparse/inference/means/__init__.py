"""What a model says of means, slopes and the differences between them."""
