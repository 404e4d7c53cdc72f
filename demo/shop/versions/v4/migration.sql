-- v4: who ordered.
ALTER TABLE orders ADD COLUMN customer text NOT NULL DEFAULT 'guest'
