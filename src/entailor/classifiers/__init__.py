"""What runs a method: the Classifier contract and its families."""
