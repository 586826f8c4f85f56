"""Programs that use Latchkey the way a service would."""
