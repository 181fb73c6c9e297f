"""How families of models write their thinking and their calls of tools, one module for each family."""
