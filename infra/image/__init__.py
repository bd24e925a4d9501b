"""What the image of the service is made of."""
