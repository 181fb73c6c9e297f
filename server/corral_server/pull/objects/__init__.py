"""Object stores of S3, Google Cloud and Azure: settings, reader, errors."""
