"""What sparse training costs, measured beside other ways. Imports neither experiments, reports nor cli."""
