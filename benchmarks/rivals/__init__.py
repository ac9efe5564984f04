"""What else can be done with the same images: other losses on pairs, a translator, labels, a stream."""
