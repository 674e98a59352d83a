"""The requests that an application sends with aiohttp's client."""
