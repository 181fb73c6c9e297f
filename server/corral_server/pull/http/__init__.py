"""HTTP client of the puller: proxy, authorities, redirects, ranges, retries."""
