-- v5: shipments are looked up by day.
CREATE INDEX shipments_by_day ON shipments (shipped_at)
