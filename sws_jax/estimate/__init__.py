"""What training costs, counted beforehand."""
