<?php
$wgSitename = 'Wiki';
