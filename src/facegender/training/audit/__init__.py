"""What is wrong with the pictures: copies, doubtful labels, leakage, before anything is learned."""
