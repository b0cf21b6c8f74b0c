"The course as web pages: `make site`. Pages are made from stored outputs; no notebook is run."
