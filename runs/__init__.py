"The commands that made the models inside the package."
