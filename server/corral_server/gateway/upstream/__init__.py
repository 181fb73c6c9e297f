"""HTTP/1.1 connections to runners and their pool."""
