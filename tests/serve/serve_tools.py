"""What tests of the server share."""

KEY = "k" * 43
HEADERS = {"Authorization": f"Bearer {KEY}"}
NOTE = "Bệnh nhân nam 62 tuổi, ho khan và sốt 38.5 độ, đau bụng vùng thượng vị."
