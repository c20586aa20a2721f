"""What a customer's cloud is asked to let Recoup do, generated from the catalogue of detections."""
