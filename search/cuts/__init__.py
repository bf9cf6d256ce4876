"""What a cut is: addresses of matrices, rank rules, kinds of cut, levels and compositions."""
