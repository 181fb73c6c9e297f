"""Pulls weights from remote sources into a store: resolvers, downloader, store."""
